"""The run database's schema, and each step that led to it; `fedai_server.databases` takes them by itself."""
