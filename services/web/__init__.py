"""The studio: a REST API, a stream of events, and a page that uses nothing but those."""
