// The target of XLA's custom calls: runs a kernel, given by name, in all threads of
// XLA's own pool.

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

// Elements that a thread takes at a time: few enough to share them out evenly, and
// enough that taking them costs nothing.
enum { BLOCK = 16384 };

typedef void kernel_t(void *const *in, void *const *out, int64_t begin, int64_t end);

// Kernels by name.

typedef struct entry {
  struct entry *next;
  kernel_t *kernel;
  char name[];
} entry;

static _Atomic(entry *) first;
static char folder[4096];

void jopt_set_folder(const char *path) { snprintf(folder, sizeof folder, "%s", path); }

int jopt_add_kernel(const char *name, void *kernel) {
  entry *new = malloc(sizeof(entry) + strlen(name) + 1);
  if (!new) return 0;
  new->kernel = (kernel_t *)kernel;
  strcpy(new->name, name);
  new->next = atomic_load(&first);
  while (!atomic_compare_exchange_weak(&first, &new->next, new)) {
  }
  return 1;
}

static kernel_t *find(const char *name) {
  for (entry *e = atomic_load(&first); e; e = e->next)
    if (!strcmp(e->name, name)) return e->kernel;
  return NULL;
}

// A program that another process compiled names kernels that this one has not loaded.
static kernel_t *load(const char *name) {
  char path[sizeof folder + 128];
  if (strspn(name, "0123456789abcdef") != strlen(name)) return NULL;
  snprintf(path, sizeof path, "%s/%s.so", folder, name);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  void *kernel = library ? dlsym(library, "kernel") : NULL;
  if (kernel) jopt_add_kernel(name, kernel);
  return (kernel_t *)kernel;
}

// One call, and the threads that share it.

typedef struct {
  kernel_t *kernel;
  void *const *in, *const *out;  // gone when the last block is done
  int64_t size, blocks;
  atomic_int_fast64_t next, done;
  atomic_int owners;
  pthread_mutex_t mutex;
  pthread_cond_t all_done;
} job;

static void drop(job *j) {
  if (atomic_fetch_sub(&j->owners, 1) > 1) return;
  pthread_mutex_destroy(&j->mutex);
  pthread_cond_destroy(&j->all_done);
  free(j);
}

static void work(job *j) {
  for (;;) {
    int64_t block = atomic_fetch_add(&j->next, 1);
    if (block >= j->blocks) return;
    int64_t begin = block * BLOCK, end = begin + BLOCK;
    j->kernel(j->in, j->out, begin, end < j->size ? end : j->size);
    if (atomic_fetch_add(&j->done, 1) + 1 == j->blocks) {
      pthread_mutex_lock(&j->mutex);
      pthread_cond_signal(&j->all_done);
      pthread_mutex_unlock(&j->mutex);
    }
  }
}

// A thread of the pool may come when nothing is left to do.
static void task(void *data) {
  work(data);
  drop(data);
}

static int64_t threads(XLA_FFI_CallFrame *frame) {
  int64_t number = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {
      XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx, &number};
  XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_NumThreads(&args);
  if (!error) return number;
  XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL,
                                        error};
  frame->api->XLA_FFI_Error_Destroy(&destroy);
  return 1;
}

static void run(XLA_FFI_CallFrame *frame, kernel_t *kernel, void *const *in,
                void *const *out, int64_t size) {
  int64_t blocks = (size + BLOCK - 1) / BLOCK;
  int64_t helpers = (blocks > 1 ? threads(frame) : 1) - 1;
  if (helpers > blocks - 1) helpers = blocks - 1;
  job *j = helpers > 0 ? calloc(1, sizeof(job)) : NULL;
  if (!j) {
    kernel(in, out, 0, size);
    return;
  }
  *j = (job){.kernel = kernel, .in = in, .out = out, .size = size, .blocks = blocks};
  atomic_init(&j->owners, (int)helpers + 1);
  pthread_mutex_init(&j->mutex, NULL);
  pthread_cond_init(&j->all_done, NULL);
  for (int64_t i = 0; i < helpers; i++) {
    XLA_FFI_ThreadPool_Schedule_Args args = {
        XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, task, j};
    XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_Schedule(&args);
    if (error) {
      XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE,
                                            NULL, error};
      frame->api->XLA_FFI_Error_Destroy(&destroy);
      drop(j);
    }
  }
  work(j);
  pthread_mutex_lock(&j->mutex);
  while (atomic_load(&j->done) < j->blocks) pthread_cond_wait(&j->all_done, &j->mutex);
  pthread_mutex_unlock(&j->mutex);
  drop(j);
}

// The call.

static XLA_FFI_Error *failed(XLA_FFI_CallFrame *frame, XLA_FFI_Error_Code code,
                             const char *message) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL,
                                    message, code};
  return frame->api->XLA_FFI_Error_Create(&args);
}

static int kernel_name(XLA_FFI_CallFrame *frame, char *name, size_t room) {
  for (int64_t i = 0; i < frame->attrs.size; i++) {
    const XLA_FFI_ByteSpan *attribute = frame->attrs.names[i];
    if (attribute->len != 6 || memcmp(attribute->ptr, "kernel", 6)) continue;
    const XLA_FFI_ByteSpan *text = frame->attrs.attrs[i];
    if (frame->attrs.types[i] != XLA_FFI_AttrType_STRING || text->len >= room) return 0;
    memcpy(name, text->ptr, text->len);
    name[text->len] = 0;
    return 1;
  }
  return 0;
}

XLA_FFI_Error *jopt_native(XLA_FFI_CallFrame *frame) {
  // XLA asks for the version before the first call.
  XLA_FFI_Metadata_Extension *asked = (void *)frame->extension_start;
  if (asked && asked->extension_base.type == XLA_FFI_Extension_Metadata) {
    asked->metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    asked->metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    asked->metadata->traits = 0;
    asked->metadata->state_type_id.type_id = 0;
    return NULL;
  }
  char name[65], message[sizeof folder + 512];
  if (!kernel_name(frame, name, sizeof name))
    return failed(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT,
                  "jopt: the call does not name its kernel");
  kernel_t *kernel = find(name);
  if (!kernel) kernel = load(name);
  if (!kernel) {
    snprintf(message, sizeof message,
             "jopt: the program was compiled by another process or on another machine, "
             "and its kernel %s is not in the cache %s. Compile it from its Python "
             "functions.",
             name, folder);
    return failed(frame, XLA_FFI_Error_Code_NOT_FOUND, message);
  }
  void *in[frame->args.size + 1], *out[frame->rets.size + 1];
  int64_t size = 1;
  for (int64_t i = 0; i < frame->args.size; i++)
    in[i] = ((XLA_FFI_Buffer *)frame->args.args[i])->data;
  for (int64_t i = 0; i < frame->rets.size; i++)
    out[i] = ((XLA_FFI_Buffer *)frame->rets.rets[i])->data;
  XLA_FFI_Buffer *result = frame->rets.rets[0];
  for (int64_t i = 0; i < result->rank; i++) size *= result->dims[i];
  run(frame, kernel, in, out, size);
  return NULL;
}
