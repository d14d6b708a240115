"""The `labs` command: for instructors and CI. Imports labutils; labutils never imports it."""
