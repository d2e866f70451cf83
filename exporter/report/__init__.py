"""A bundle's report: one HTML file that shows what was made, proven, built and measured."""
