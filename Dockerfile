# qmdd with the built-in checkpoint, exported and proven exact while the image is built.
#
#   docker build --tag qmdd .
#   docker run --rm --volume "$PWD/photos:/photos:ro" qmdd detect /home/qmdd/bundle /photos
#
# The first stage has the C++ compiler that builds the native operators; the image itself has none.
FROM python:3.11-bookworm AS builder

# Only what is installed is copied, so that a changed test or document rebuilds nothing.
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY models ./models
COPY calibration ./calibration
COPY exporter ./exporter
COPY runtime ./runtime
COPY cli ./cli
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm

# pip's default torch brings CUDA libraries along (gigabytes). For the CPU build, which is all that
# export and detect use, give PyTorch's index of CPU builds: --build-arg PIP_EXTRA_INDEX_URL=...
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
