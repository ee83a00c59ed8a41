# docker build -t prism_tune .
# docker run --rm --gpus all --shm-size 16g \
#   -v "$PWD/data:/app/data" -v "$PWD/runs:/app/runs" -v prism_tune_cache:/cache \
#   prism_tune [CONFIG] [key=value ...]
#
# Any verb: put `prism-tune` and its words behind the image's name:
#   docker run --rm -v ... prism_tune prism-tune doctor
#   docker run --rm -it --gpus all -v ... prism_tune prism-tune chat runs/my-run
#   docker run --rm -v ... -p 8000:8000 prism_tune prism-tune report runs/my-run --serve --host 0.0.0.0
#
# /cache holds converted pools and everything from the hub: keep it in a volume, or every container
# fetches and converts anew. --shm-size: readers of images hand them over in shared memory, of which
# a container has 64 MB. Private models: -e HF_TOKEN.
#
# The torch wheel brings CUDA's libraries. DeepSpeed compiles its CPU-offload and fused optimizers
# with nvcc on first use: where you want those, build on an image that has the CUDA toolkit and
# Python >= 3.11 (--build-arg BASE_IMAGE=...).
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

# The newest packages of the base image, with its security updates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
ENV PRISM_TUNE_VENV=/opt/prism_tune \
    PATH=/opt/prism_tune/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PRISM_TUNE_CACHE=/cache/prism_tune \
    HF_HOME=/cache/huggingface

# The dependencies are a layer of their own: a changed source file does not install them again.
COPY setup.py pyproject.toml README.md LICENSE ./
COPY prism_tune/__init__.py prism_tune/
COPY scripts/setup.sh scripts/
RUN mkdir configs && bash scripts/setup.sh quickstart,eval

COPY . .

VOLUME ["/cache"]
ENTRYPOINT ["bash", "scripts/container.sh"]
