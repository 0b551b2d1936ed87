"""Static verification of programs: what is proven of a binary before anything of it runs."""
