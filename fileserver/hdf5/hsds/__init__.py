"""One HSDS server as we talk to it: settings, requests, domains, their publication."""
