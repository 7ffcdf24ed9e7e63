# Melange as an image: the balancer that melange deploy puts before replicas, and every other command.
#   docker build -t melange:0.1.0 .
#   docker run --rm melange:0.1.0 melange --help
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/melange \
 && /opt/melange/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[live]'

FROM python:3.12-slim
COPY --from=build /opt/melange /opt/melange
ENV PATH=/opt/melange/bin:$PATH PYTHONUNBUFFERED=1
# Nobody's user and group: it needs no rights, and writes nothing but what it is told to.
USER 65532:65532
EXPOSE 8080
CMD ["melange", "--help"]
