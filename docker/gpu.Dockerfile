# Image of the nodes with GPUs (CUDA 13, x86-64). It needs no compiler. The tag is Ray's version:
#   docker build -f docker/gpu.Dockerfile -t REGISTRY/vgs-ray:2.60.0-gpu .
FROM rayproject/ray:2.60.0-py311-gpu

RUN mkdir /home/ray/vgs_ray
WORKDIR /home/ray/vgs_ray

# Dependencies first, so that a change of the code does not install them again.
COPY --chown=ray pyproject.toml README.md LICENSE constraints-gpu.txt ./
RUN pip install --no-cache-dir -c constraints-gpu.txt '.[gpu,svpo]'

COPY --chown=ray vgs_ray vgs_ray
COPY --chown=ray pipelines pipelines
RUN pip install --no-cache-dir --no-deps --force-reinstall .
