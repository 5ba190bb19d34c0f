"""One run in several processes, on one machine or several; ``docs/distributed.md`` says how.

``hosts`` says how many processes there are, ``meeting`` brings the machines together,
``launching`` starts and watches the processes, ``group`` is what they tell each other,
``message`` is how it is sent, ``sharding`` deals a batch's rows out to them and ``gradients``
adds up what they learn.
"""
