"""The demo: real flights, from files through joins and checks into PostgreSQL."""
