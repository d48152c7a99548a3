"""Benchmarks. OpenMP threads wait at barriers as in the programs; set before torch is imported."""

from triplaneturbo.__main__ import limit_openmp_spinning

limit_openmp_spinning()
