/* The little of the CUDA runtime that qmdd calls, over this machine's own memory. */
#include <stdlib.h>
#include <string.h>

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}

const char *cudaGetErrorString(int code) {
  return code == 2 ? "out of memory" : "no error of the stand-in's";
}

int cudaGetDeviceCount(int *count) {
  *count = number("STANDIN_GPUS", 1);
  return 0;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  int capability = number("STANDIN_CAPABILITY", 87); /* 8.7 */
  *value = attribute == 75 ? capability / 10 : capability % 10;
  return 0;
}

int cudaDriverGetVersion(int *version) {
  *version = 12060;
  return 0;
}

int cudaStreamCreate(void **stream) { return (*stream = malloc(1)) ? 0 : 2; }
int cudaStreamDestroy(void *stream) { return free(stream), 0; }
int cudaStreamSynchronize(void *stream) { return (void)stream, 0; }
int cudaMalloc(void **address, size_t count) { return (*address = malloc(count)) ? 0 : 2; }
int cudaFree(void *address) { return free(address), 0; }

int cudaMemcpyAsync(void *to, const void *from, size_t count, int kind, void *stream) {
  (void)kind, (void)stream;
  memcpy(to, from, count);
  return 0;
}
