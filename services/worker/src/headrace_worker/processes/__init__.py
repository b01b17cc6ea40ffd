"""The processes that stages run in: a zygote that forks them, and how the supervisor talks to them."""
