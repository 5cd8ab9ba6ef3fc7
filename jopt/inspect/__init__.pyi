"""Every public name of jopt.inspect."""

from .range_test import RangeTest as RangeTest, lr_range_test as lr_range_test
