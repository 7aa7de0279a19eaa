# predictd and its models on nothing but the libraries they need: no shell, no package manager.
#
#   docker build -t predictd .
#   docker build -t predictd:cuda --build-arg VARIANT=cuda --build-arg BASE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 .
#
# Written for every builder from Docker 20.10 on, with and without BuildKit.

# What the image starts from: nothing, or for VARIANT=cuda an image with CUDA 13 and cuDNN 9.
ARG BASE=scratch

# The manifests alone, each with an empty library, so that a change of the sources leaves the layer of dependencies as it is.
FROM rust:1.95-slim-bookworm AS manifests
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN find crates -type f ! -name Cargo.toml ! -path 'crates/httpdate/*' -exec rm {} + \
 && for crate in crates/*/; do mkdir -p "$crate/src" && touch -a "$crate/src/lib.rs"; done

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ libstdc++6 locales python3 python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY deploy/build.py deploy/
# Another one is built sooner, and slower: for tests of the image.
ARG PROFILE=release
# Dependencies change seldom: they are a layer of their own, built from the lock file and an empty program.
COPY --from=manifests /build ./
RUN mkdir src benches \
 && touch src/lib.rs $(sed -n '/^\[\[bench\]\]/{n;s|name = "\(.*\)"|benches/\1.rs|p}' Cargo.toml) \
 && echo 'fn main() {}' > src/main.rs \
 && python3 deploy/build.py --target-dir target --profile "$PROFILE"
COPY crates crates
COPY src src
# Cargo goes by the time of change, and files of the context may be older than the empty program.
RUN find src crates -type f -exec touch {} + \
 && python3 deploy/build.py --target-dir target --profile "$PROFILE" --output /image/opt/predictd/predictd \
 && strip /image/opt/predictd/predictd
COPY deploy/*.py deploy/
COPY LICENSE ./
COPY models/banking77-minilm models/banking77-minilm
COPY models/banking77-tfidf models/banking77-tfidf
ARG VARIANT=cpu
# ONNX Runtime comes out of a wheel of PyPI and is pinned by its SHA-256. Then what a base image would bring: libraries
# of the system, certificates, locales, users.
RUN python3 deploy/onnxruntime.py --licences --variant "$VARIANT" --directory /image/opt/predictd/lib \
 && cp LICENSE /image/opt/predictd/ \
 && cp -r models /image/models \
 && python3 deploy/sbom.py --binary /image/opt/predictd/predictd --library /image/opt/predictd/lib/libonnxruntime.so.* \
      --output /image/opt/predictd/sbom.cdx.json \
 && python3 deploy/image.py --root /image --variant "$VARIANT"

FROM ${BASE}
COPY --from=build /image/ /
ARG REVISION=unknown
LABEL org.opencontainers.image.title="predictd" \
      org.opencontainers.image.description="Serves ONNX text models over HTTP" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/predictd:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PREDICTD_LISTEN=0.0.0.0:8000 \
    PREDICTD_ADMIN_LISTEN=127.0.0.1:8001 \
    PREDICTD_MODELS=/models \
    PREDICTD_DATA_DIR=/data \
    PREDICTD_DRAIN_DELAY=5s
# Any other user will do: nothing but /data is written to.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30m --retries=3 CMD ["predictd", "health"]
ENTRYPOINT ["predictd"]
CMD ["serve"]
