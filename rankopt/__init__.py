"""rankopt: which rank should each layer get, what does it cost, and is the fancy strategy really better?"""

__version__ = "0.1.0"
