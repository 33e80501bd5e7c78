/* ---- Memory: of the caller's allocator, or kept from call to call ---- */

/* Large blocks are kept for the calls that follow, up to 64 MiB of them: malloc() hands such memory back to the system when it is
   freed, and the next call would wait for each page of it anew. */
enum { KEPT = 16, KEPT_LEAST = 1 << 16, KEPT_MOST = 1 << 26 };
static struct {
  void *memory;
  size_t bytes; /* 0: none */
} kept[KEPT];
static size_t kept_bytes;
static int kept_oldest;
static char kept_busy; /* who finds it so does without */

/* A kept block of at least so many bytes and less than twice as many, or null. */
static void *take_kept(size_t *bytes) {
  void *memory = NULL;
  int i, best = -1;
  if (*bytes < KEPT_LEAST || __atomic_test_and_set(&kept_busy, __ATOMIC_ACQUIRE)) return NULL;
  for (i = 0; i < KEPT; i++)
    if (kept[i].bytes >= *bytes && kept[i].bytes / 2 < *bytes && (best < 0 || kept[i].bytes < kept[best].bytes)) best = i;
  if (best >= 0) {
    memory = kept[best].memory, *bytes = kept[best].bytes;
    kept[best].bytes = 0, kept_bytes -= *bytes;
  }
  __atomic_clear(&kept_busy, __ATOMIC_RELEASE);
  return memory;
}

static void keep_or_free(void *memory, size_t bytes) {
  void *gone[KEPT];
  int i, count = 0, slot = -1;
  if (bytes < KEPT_LEAST || bytes > KEPT_MOST || __atomic_test_and_set(&kept_busy, __ATOMIC_ACQUIRE)) {
    free(memory);
    return;
  }
  for (i = 0; i < KEPT; i++)
    if (!kept[i].bytes) slot = i;
  for (; slot < 0 || kept_bytes + bytes > KEPT_MOST; kept_oldest = (kept_oldest + 1) % KEPT)
    if (kept[kept_oldest].bytes) {
      gone[count++] = kept[kept_oldest].memory, kept_bytes -= kept[kept_oldest].bytes;
      kept[kept_oldest].bytes = 0, slot = kept_oldest;
    }
  kept[slot].memory = memory, kept[slot].bytes = bytes, kept_bytes += bytes;
  __atomic_clear(&kept_busy, __ATOMIC_RELEASE);
  for (i = 0; i < count; i++) free(gone[i]);
}

/* Also when the library is unloaded. */
__attribute__((destructor)) static void free_kept(void) {
  int i;
  if (__atomic_test_and_set(&kept_busy, __ATOMIC_ACQUIRE)) return;
  for (i = 0; i < KEPT; i++)
    if (kept[i].bytes) free(kept[i].memory), kept[i].bytes = 0;
  kept_bytes = 0;
  __atomic_clear(&kept_busy, __ATOMIC_RELEASE);
}

/* 128-byte alignment, and a margin on both sides that vectors may touch. */
void *halide_malloc(void *call, size_t bytes) {
  const size_t margin = 256;
  char *memory = NULL, *aligned;
  (void)call;
  if (bytes > SIZE_MAX - margin) return NULL;
  bytes += margin;
  if (the_allocator.allocate) memory = (char *)the_allocator.allocate(the_allocator.user, bytes);
  else if (!(memory = (char *)take_kept(&bytes))) memory = (char *)malloc(bytes);
  if (!memory) return NULL;
  /* At least 64 bytes in, which say what to free, and 65 left behind. */
  aligned = (char *)(((uintptr_t)memory + 191) & ~(uintptr_t)127);
  memcpy(aligned - sizeof memory, &memory, sizeof memory);
  memcpy(aligned - sizeof memory - sizeof bytes, &bytes, sizeof bytes);
  return aligned;
}

void halide_free(void *call, void *aligned) {
  char *memory;
  size_t bytes;
  (void)call;
  if (!aligned) return;
  memcpy(&memory, (char *)aligned - sizeof memory, sizeof memory);
  memcpy(&bytes, (char *)aligned - sizeof memory - sizeof bytes, sizeof bytes);
  if (!the_allocator.allocate) keep_or_free(memory, bytes);
  else if (the_allocator.release) the_allocator.release(the_allocator.user, memory);
}
