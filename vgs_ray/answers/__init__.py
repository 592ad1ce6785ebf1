"""Answers: found in a response (`extract`), brought to one spelling (`spelling`), read (`reading`), compared (`compare`).

`vgs_ray.grade` is the public door, `vgs_ray.answers.judge` runs the comparison in processes that can be killed.
"""
