"""Pictures and videos of users: reading, colouring and writing them."""
