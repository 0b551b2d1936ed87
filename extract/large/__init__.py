"""Choice problems as flat arrays, solved by compiled code: for tens of thousands of variables."""
