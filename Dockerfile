# docker build -t triplaneturbo .                            with nvdiffrast: --build-arg NVDIFFRAST=1
# docker run -p 7860:7860 -v triplaneturbo:/cache triplaneturbo                    on a GPU: --gpus all
#
# Downloaded weights stay in /cache. nvdiffrast's licence allows non-commercial use only. The image also runs as
# a Docker Space on Hugging Face, which requires user 1000 and port 7860.
# The CUDA compiler must have the same major version as the CUDA that torch is built with.
ARG CUDA=13.0.1-runtime-ubuntu24.04
ARG CUDA_COMPILER=13.0.1-devel-ubuntu24.04
ARG NVDIFFRAST=0

FROM nvidia/cuda:${CUDA} AS packages
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /tmp/requirements.txt
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir -r /tmp/requirements.txt

# The final stage copies /wheels: empty, or with a wheel of nvdiffrast.
FROM packages AS nvdiffrast-0
RUN mkdir /wheels

FROM nvidia/cuda:${CUDA_COMPILER} AS nvdiffrast-1
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-dev python3-venv git g++ ninja-build \
    && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/venv /opt/venv
COPY requirements-cuda.txt /tmp/requirements-cuda.txt
# The build has no GPU whose architecture could be detected.
ENV TORCH_CUDA_ARCH_LIST="7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"
# hadolint ignore=DL3013
RUN /opt/venv/bin/pip install --no-cache-dir setuptools wheel \
    && /opt/venv/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels \
        -r /tmp/requirements-cuda.txt

# hadolint ignore=DL3006
FROM nvdiffrast-${NVDIFFRAST} AS nvdiffrast

FROM packages
COPY --from=nvdiffrast /wheels /wheels
RUN find /wheels -name '*.whl' -exec /opt/venv/bin/pip install --no-cache-dir --no-deps {} +
# The image of Ubuntu already has a user 1000.
RUN userdel --remove ubuntu \
    && useradd --create-home --uid 1000 user \
    && install --directory --owner=user /cache
USER 1000
WORKDIR /home/user/app
ENV HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache PYTHONUNBUFFERED=1
VOLUME /cache
COPY --chown=user . .
RUN /opt/venv/bin/python -m triplaneturbo.mesh.warmup

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s \
    CMD ["/opt/venv/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860', timeout=5)"]
CMD ["/opt/venv/bin/python", "app.py", "--host", "0.0.0.0", "--port", "7860", "--outputs", "/cache/history"]
