# docker build -t prism_tune .
# docker run --rm --gpus all --shm-size 16g \
#   -v "$PWD/data:/app/data" -v "$PWD/runs:/app/runs" -v "$PWD/configs:/app/configs" \
#   prism_tune [CONFIG] [key=value ...]
#
# The torch wheel brings CUDA's libraries. DeepSpeed compiles its CPU-offload and fused optimizers
# with nvcc on first use: where you want those, build on an image that has the CUDA toolkit and
# Python >= 3.11 (--build-arg BASE_IMAGE=...).
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
ENV PRISM_TUNE_VENV=/opt/prism_tune \
    PATH=/opt/prism_tune/bin:$PATH \
    PIP_NO_CACHE_DIR=1

# The dependencies are a layer of their own: a changed source file does not install them again.
COPY setup.py pyproject.toml README.md LICENSE ./
COPY prism_tune/__init__.py prism_tune/
COPY scripts/setup.sh scripts/
RUN mkdir configs && bash scripts/setup.sh quickstart,eval

COPY . .

ENTRYPOINT ["bash", "scripts/select_and_finetune.sh"]
