"""A value that holds, and how it is found out whether a higher one does."""


class Ceiling:
    """
    The highest value that has held; probed upwards, the faster the longer it has.

    Attributes:
        value: The value that holds; infinite while nothing is known.
        age: For how many seconds it has been in use. What is not made use of proves nothing.
        unit: Seconds in which enough requests are answered to tell whether a value holds.
        hold: Seconds of use before the first probe. They double with each probe that fails, so that probes become rare.
    """

    LONGEST_UNIT = 4.0  # 2 makes half as many 429s again, 8 costs 1 point
    REQUESTS = 200.0  # a unit of 4 s at any rate costs 1 point at 5 ms of latency
    ROUND_TRIPS = 6.0  # 3 makes two thirds more 429s at 2 s of latency
    PAUSES = 4.0  # without it a tenth more 429s, and half of the share of a limit in flight that says when to come back
    GROWTH = 3.0  # units after which a probe has doubled the value; 6 costs 1 point
    MOST_UNITS = 15.0  # of a hold; 8 makes a few more 429s, 30 costs half a point with 200 requests in flight

    def __init__(self, value: float) -> None:
        self.value = value
        self.age = 0.0
        self.unit = self.hold = self.LONGEST_UNIT

    @property
    def now(self) -> float:
        """The value with its probe."""
        return self.value * (1 + (max(0.0, self.age - self.hold) / (self.GROWTH * self.unit)) ** 2)

    @property
    def is_probing(self) -> bool:
        """Whether it is above what has held."""
        return self.age > self.hold

    def settle(self, value: float, hold: float, *, pace: float, round_trip: float, pause: float) -> None:
        """Go on from another value, at which *pace* requests a second are answered, after a *pause*."""
        self.value, self.age = value, 0.0
        self.unit = min(self.LONGEST_UNIT, max(self.REQUESTS / pace, self.PAUSES * pause))
        self.unit = max(self.unit, self.ROUND_TRIPS * round_trip)
        self.hold = max(self.unit, min(hold, self.MOST_UNITS * self.unit))

    def spare(self, pause: float) -> None:
        """Hold for longer: to be too high has cost a *pause* that lasts on."""
        self.hold = max(self.hold, min(self.PAUSES * pause, self.MOST_UNITS * self.unit))
