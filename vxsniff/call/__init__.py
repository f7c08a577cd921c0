"""Exchanges -> API calls: the details of a call, the privacy rules, the line that is shipped. Pure."""
