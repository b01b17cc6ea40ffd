"""The chassis: what every Headrace service stands on. Each module is one concern; nothing happens at
import."""
