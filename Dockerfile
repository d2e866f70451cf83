# Images of qmdd; docs/docker.md says what each is for and has the same steps to do by hand.
#
#   docker build --tag qmdd .                                      # the built-in checkpoint, exported
#   docker build --target ci --tag qmdd-ci .                       # what .ci/run needs
#   docker build --platform linux/arm64 --target device --tag qmdd-device .   # Jetsons, JetPack 6

# --- ci: a clean clone with its environment; x86-64 ---
FROM python:3.11-slim-bookworm AS ci

# Debian drops a version from its mirrors when the next one comes: none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends chromium clang g++ g++-aarch64-linux-gnu libclang-rt-dev make openssh-client openssh-server procps qemu-user-static systemd \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 qmdd \
 && install --directory --owner=qmdd --group=qmdd /src

# pip's default torch brings CUDA libraries along (gigabytes). For the CPU build, which is all that
# is needed, give PyTorch's index of CPU builds: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL=""

USER 10001
WORKDIR /src
COPY --chown=10001:10001 . .
RUN make env
CMD [".ci/run"]

# --- builder: the wheel; its C++ compiler stays behind ---
FROM python:3.11-bookworm AS builder

WORKDIR /src
# The tools of the build are pinned, too: they are installed first, and no others are fetched.
COPY constraints.txt ./
RUN python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --constraint constraints.txt pip setuptools cmake
# Only what is installed is copied, so that a changed test or document rebuilds nothing.
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY models ./models
COPY calibration ./calibration
COPY exporter ./exporter
COPY runtime ./runtime
COPY cli ./cli
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# --- device-builder: the wheel and the environment of a Jetson, with the Python of its TensorRT ---
# NVIDIA's image is theirs and under their licence: it is pulled by who builds, and never published
# by this project.
FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime AS device-builder

# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --constraint constraints.txt pip setuptools cmake
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY models ./models
COPY calibration ./calibration
COPY exporter ./exporter
COPY runtime ./runtime
COPY cli ./cli
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .
# runtime, or video: with PyAV. TensorRT belongs to the system's Python, whose packages are seen.
ARG EXTRA=runtime
RUN python3 -m venv --system-site-packages /opt/qmdd \
 && /opt/qmdd/bin/pip install --no-cache-dir --constraint constraints.txt "$(echo /wheels/qmdd-*.whl)[$EXTRA]" \
 && /opt/qmdd/bin/python -c "import importlib.util as u, sys; sys.exit(not u.find_spec('tensorrt'))"

# --- device: on a Jetson with JetPack 6, run with --runtime nvidia ---
FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime AS device

COPY --from=device-builder /opt/qmdd /opt/qmdd
# Group video may use the GPU on a Jetson.
RUN useradd --create-home --uid 10001 --groups video qmdd
ENV PATH=/opt/qmdd/bin:$PATH
USER 10001
WORKDIR /home/qmdd
ENTRYPOINT ["qmdd"]
CMD ["doctor"]

# --- runtime: export, verify, detect on this machine's CPU; the default ---
FROM python:3.11-slim-bookworm AS runtime

ARG PIP_EXTRA_INDEX_URL=""

WORKDIR /src
COPY constraints.txt ./
COPY --from=builder /wheels /wheels
# The same pinned versions as `make export`. Images come from strangers: nothing that decodes them
# runs as root.
RUN pip install --no-cache-dir --constraint constraints.txt "$(echo /wheels/qmdd-*.whl)[export]" \
 && rm -r /wheels \
 && useradd --create-home --uid 10001 qmdd

USER 10001
WORKDIR /home/qmdd
# Fails the build if one code differs from the source model.
RUN qmdd export --bits 2 --target cpu --output bundle

ENTRYPOINT ["qmdd"]
CMD ["--help"]
