"""The rule set that the modules of this folder fill."""

from tilewright.rules.registry import RuleSet

fusion = RuleSet("fusion")
