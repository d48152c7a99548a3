"""The Generate tab, and the same work as API endpoints."""
