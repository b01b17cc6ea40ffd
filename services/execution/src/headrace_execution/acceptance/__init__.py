"""From a request to a durable run: read the definition, compile it, check the parameters, write it all at
once.
"""
