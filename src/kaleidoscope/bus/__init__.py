"""Messages between rooms and machines: published with a transaction, delivered at least once.

A room declares an `Event` (`messages`), publishes it in its own transaction (`publish`) and names
a `Handler` for what it wants to hear of (`handlers`); `worker` runs handlers, `transports` carry
the messages, `service` looks after those that died.
"""
