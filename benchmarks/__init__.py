"""Benchmarks. As in the programs, OpenMP threads sleep at barriers; set before torch is imported."""

from triplaneturbo.__main__ import avoid_openmp_spinning

avoid_openmp_spinning()
