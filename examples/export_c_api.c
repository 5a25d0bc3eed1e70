/* Minimises a noisy quadratic with an exported HierarchicalRNN, through TensorFlow's C
 * API: no Python, no Keras. docs/export.md shows how to build and run it.
 *
 *     export_c_api SAVED_MODEL [STEPS [INITIAL_LEARNING_RATE]]
 *
 * prints the parameters after each step, a line each. `Optimizer` below is what to take
 * over into a program of your own: it reads from the SavedModel which tensors the state
 * has, whatever the architecture, and hands what `update` returned to the next call.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

#define MAX_TENSORS 16
#define MAX_NAME 128

static void fail(const char *what, const char *detail) {
  fprintf(stderr, "export_c_api: %s%s%s\n", what, *detail ? ": " : "", detail);
  exit(1);
}

static void check(const char *what, TF_Status *status) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

/* The signatures, from the MetaGraphDef. A SavedModel names its tensors there, and
 * nowhere else; its wire format is simple enough to be read without protobuf. */

typedef struct {
  const uint8_t *data;
  size_t length;
} Bytes;

static uint64_t read_varint(Bytes *from) {
  uint64_t value = 0;
  for (int shift = 0; from->length && shift < 64; shift += 7) {
    uint8_t byte = *from->data++;
    from->length--;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
  }
  fail("the SavedModel is damaged", "");
  return 0;
}

/* Takes the next field off a message: its number, and its content if it has a length. */
static int next_field(Bytes *message, Bytes *content) {
  uint64_t key = read_varint(message);
  size_t length = 0;
  switch (key & 7) {
    case 0: read_varint(message); break;
    case 1: length = 8; break;
    case 2: length = read_varint(message); break;
    case 5: length = 4; break;
    default: fail("the SavedModel is damaged", "");
  }
  if (length > message->length) fail("the SavedModel is damaged", "");
  *content = (Bytes){message->data, length};
  message->data += length;
  message->length -= length;
  return (int)(key >> 3);
}

static Bytes find_field(Bytes message, int wanted) {
  Bytes content;
  while (message.length)
    if (next_field(&message, &content) == wanted) return content;
  return (Bytes){NULL, 0};
}

static void copy_text(char *to, Bytes text) {
  if (text.length >= MAX_NAME) fail("a name in the SavedModel is too long", "");
  memcpy(to, text.data, text.length);
  to[text.length] = 0;
}

static int is_text(Bytes text, const char *wanted) {
  return text.length == strlen(wanted) && !memcmp(text.data, wanted, text.length);
}

/* The tensors that go into a signature, or come out of it. */
typedef struct {
  int count;
  char names[MAX_TENSORS][MAX_NAME];
  TF_Output outputs[MAX_TENSORS];
} Tensors;

typedef struct {
  Tensors inputs, outputs;
} Signature;

static void add_tensor(Tensors *tensors, Bytes entry, TF_Graph *graph) {
  char name[MAX_NAME];
  if (tensors->count == MAX_TENSORS) fail("the signature has too many tensors", "");
  copy_text(tensors->names[tensors->count], find_field(entry, 1));
  copy_text(name, find_field(find_field(entry, 2), 1)); /* "operation:index" */
  char *colon = strrchr(name, ':');
  int index = colon ? atoi(colon + 1) : 0;
  if (colon) *colon = 0;
  TF_Operation *operation = TF_GraphOperationByName(graph, name);
  if (!operation) fail("the graph has no operation", name);
  tensors->outputs[tensors->count++] = (TF_Output){operation, index};
}

static Signature *find_signature(Bytes meta_graph, const char *name, TF_Graph *graph) {
  Signature *found = calloc(1, sizeof *found);
  Bytes entry, tensor;
  while (meta_graph.length) {
    /* MetaGraphDef.signature_def, a map from names to SignatureDefs. */
    if (next_field(&meta_graph, &entry) != 5) continue;
    if (!is_text(find_field(entry, 1), name)) continue;
    Bytes definition = find_field(entry, 2);
    while (definition.length) {
      int field = next_field(&definition, &tensor);
      if (field == 1) add_tensor(&found->inputs, tensor, graph);
      if (field == 2) add_tensor(&found->outputs, tensor, graph);
    }
    return found;
  }
  fail("the SavedModel has no signature", name);
  return NULL;
}

/* The optimizer: its session, and the last results of `init` or `update`. */

typedef struct {
  TF_Session *session;
  Signature *init, *update;
  TF_Tensor *results[MAX_TENSORS]; /* in the order of `last->outputs` */
  Signature *last;
} Optimizer;

typedef struct {
  const char *name;
  TF_Tensor *tensor;
} Argument;

static Optimizer load(const char *folder) {
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Buffer *buffer = TF_NewBuffer();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, folder, tags, 1,
                                                     graph, buffer, status);
  check("the SavedModel cannot be loaded", status);
  Bytes meta_graph = {buffer->data, buffer->length};
  Optimizer found = {.session = session,
                     .init = find_signature(meta_graph, "init", graph),
                     .update = find_signature(meta_graph, "update", graph)};
  TF_DeleteBuffer(buffer);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return found;
}

static TF_Tensor *result(const Optimizer *optimizer, const char *name) {
  for (int i = 0; optimizer->last && i < optimizer->last->outputs.count; i++)
    if (!strcmp(optimizer->last->outputs.names[i], name)) return optimizer->results[i];
  fail("no result has the name", name);
  return NULL;
}

/* Runs a signature; what is no argument is taken from the last results. */
static void run(Optimizer *optimizer, Signature *signature, const Argument *arguments,
                int num_arguments) {
  TF_Tensor *fed[MAX_TENSORS], *fetched[MAX_TENSORS] = {0};
  for (int i = 0; i < signature->inputs.count; i++) {
    const char *name = signature->inputs.names[i];
    fed[i] = NULL;
    for (int j = 0; j < num_arguments; j++)
      if (!strcmp(arguments[j].name, name)) fed[i] = arguments[j].tensor;
    if (!fed[i]) fed[i] = result(optimizer, name);
  }
  TF_Status *status = TF_NewStatus();
  TF_SessionRun(optimizer->session, NULL, signature->inputs.outputs, fed,
                signature->inputs.count, signature->outputs.outputs, fetched,
                signature->outputs.count, NULL, 0, NULL, status);
  check("a step failed", status);
  TF_DeleteStatus(status);
  for (int i = 0; optimizer->last && i < optimizer->last->outputs.count; i++)
    TF_DeleteTensor(optimizer->results[i]);
  memcpy(optimizer->results, fetched, sizeof fetched);
  optimizer->last = signature;
}

static TF_Tensor *make_tensor(TF_DataType dtype, int rank, int64_t length,
                              const void *content) {
  size_t size = TF_DataTypeSize(dtype) * (size_t)length;
  TF_Tensor *tensor = TF_AllocateTensor(dtype, &length, rank, size);
  if (content) memcpy(TF_TensorData(tensor), content, size);
  return tensor;
}

/* The problem: curvature * (parameter - target)^2 / 2 and noise in the gradient. */

enum { TENSORS = 4, ELEMENTS = 12 };
static const int64_t row_lengths[TENSORS] = {6, 0, 5, 1}; /* one tensor is empty */

static float draw(void) { /* in [-1, 1), the same numbers everywhere */
  static uint32_t seed = 1;
  seed = seed * 1664525u + 1013904223u;
  return (float)(seed >> 8) / 8388608.0f - 1.0f;
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 4)
    fail("usage: export_c_api SAVED_MODEL [STEPS [INITIAL_LEARNING_RATE]]", "");
  int steps = argc > 2 ? atoi(argv[2]) : 100;
  float initial = argc > 3 ? strtof(argv[3], NULL) : 1e-3f, rate = 1.0f;

  float values[ELEMENTS], targets[ELEMENTS], curvatures[ELEMENTS];
  for (int i = 0; i < ELEMENTS; i++) values[i] = draw();
  for (int i = 0; i < ELEMENTS; i++) targets[i] = draw();
  for (int i = 0; i < ELEMENTS; i++) curvatures[i] = 1.5f + draw();

  Optimizer optimizer = load(argv[1]);
  TF_Tensor *gradients = make_tensor(TF_FLOAT, 1, ELEMENTS, NULL);
  TF_Tensor *start = make_tensor(TF_FLOAT, 1, ELEMENTS, values);
  Argument to_init[] = {
      {"row_lengths", make_tensor(TF_INT64, 1, TENSORS, row_lengths)},
      {"initial_learning_rate", make_tensor(TF_FLOAT, 0, 1, &initial)}};
  run(&optimizer, optimizer.init, to_init, 2);
  Argument to_update[] = {to_init[0],
                          {"learning_rate", make_tensor(TF_FLOAT, 0, 1, &rate)},
                          {"gradients", gradients},
                          {"values", start}};
  const float *now = values;
  for (int step = 0; step < steps; step++) {
    float *gradient = TF_TensorData(gradients);
    for (int i = 0; i < ELEMENTS; i++)
      gradient[i] = curvatures[i] * (now[i] - targets[i]) + draw() / 2;
    /* From the second step on, the values are results like the state. */
    run(&optimizer, optimizer.update, to_update, step ? 3 : 4);
    now = TF_TensorData(result(&optimizer, "values"));
    for (int i = 0; i < ELEMENTS; i++)
      printf("%.9g%c", now[i], i + 1 < ELEMENTS ? ' ' : '\n');
  }
  return 0;
}
