"""For people and for CI: profiles, comparisons, the HTML report, JUnit."""
