# docker build -t crgan .                            # --build-arg TORCH=cpu: 3 GB smaller, no GPU
# docker run --rm -v "$PWD/outputs:/work/outputs" crgan train experiment=demo
# docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD/outputs:/work/outputs" crgan train ...
FROM python:3.12-slim
ARG TORCH=default
ENV VIRTUAL_ENV=/opt/crgan PATH=/opt/crgan/bin:$PATH
WORKDIR /src
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --quiet --no-cache-dir uv \
    && /opt/uv/bin/uv venv --quiet "$VIRTUAL_ENV"
COPY . .
RUN UV_NO_CACHE=1 scripts/setup.sh /opt/uv/bin/uv "$TORCH"
# caches and downloads below the mounted folder, so that they outlast a container of any user
WORKDIR /work
ENV HOME=/work/outputs
VOLUME /work/outputs
ENTRYPOINT ["crgan"]
