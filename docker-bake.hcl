# docker buildx bake              both platforms, into the build cache
# docker buildx bake --push       and to the registry of IMAGE
# VERSION and REVISION come from the environment: REVISION=$(git rev-parse HEAD) docker buildx bake

variable "IMAGE" {
  default = "vxsniff"
}

variable "VERSION" {
  default = "0.1.0"
}

variable "REVISION" {
  default = ""
}

variable "BASE" {
  default = "python:3.12-slim"
}

group "default" {
  targets = ["vxsniff"]
}

target "vxsniff" {
  context    = "."
  dockerfile = "Dockerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${IMAGE}:${VERSION}", "${IMAGE}:latest"]
  args = {
    BASE     = BASE
    VERSION  = VERSION
    REVISION = REVISION
    CREATED  = timestamp()
  }
}
