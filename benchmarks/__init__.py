"""Benchmarks. As in the programs, OpenMP threads sleep at barriers; set before torch is imported."""

from triplaneturbo.__main__ import limit_openmp_spinning

limit_openmp_spinning()
