// The child's side of a contestant: it runs code that may do anything.
#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <sched.h>
#include <unistd.h>
#include <algorithm>
#include <cstring>
#include <iostream>
#include <map>
#include <optional>
#include "contestant.h"
#include "convsmith/error.h"
#include "tools/measure/call.h"
#include "tools/support/file_descriptor.h"
#include "tools/support/process.h"
#include "tools/verify/certificate.h"

namespace convsmith {
namespace {

constexpr std::int64_t most_products = 400'000;  // of the reference, a check; all elements are in the digest

// A tensor with marks on both sides, in memory that held `filler` before.
class Guarded {
 public:
  Guarded(const convsmith_tensor &like, unsigned char filler) {
    Shape shape(like.extent, like.extent + like.rank), strides(like.stride, like.stride + like.rank);
    std::int64_t elements = 1;
    for (size_t a = 0; a < shape.size(); a++) elements += (shape[a] - 1) * strides[a];
    bytes_ = size_t(elements) * size_of(convsmith_type(like.type));
    memory_.assign(bytes_ + 2 * margin + alignment, mark);
    start_ = memory_.data() + margin;
    start_ += (alignment - reinterpret_cast<std::uintptr_t>(start_) % alignment) % alignment;
    std::memset(start_, filler, bytes_);
    tensor = Tensor::view(start_, convsmith_type(like.type), shape, strides);
  }
  Guarded(Guarded &&) = default;
  Guarded(const Guarded &) = delete;
  bool intact() const {
    const auto marked = [](const unsigned char *from, const unsigned char *to) { return std::all_of(from, to, [](unsigned char c) { return c == mark; }); };
    return marked(memory_.data(), start_) && marked(start_ + bytes_, memory_.data() + memory_.size());
  }
  bool same(const Guarded &other) const { return bytes_ == other.bytes_ && std::memcmp(start_, other.start_, bytes_) == 0; }

  Tensor tensor;

 private:
  static constexpr size_t margin = 4096, alignment = 64;
  static constexpr unsigned char mark = 0xa5;
  std::vector<unsigned char> memory_;
  unsigned char *start_ = nullptr;
  size_t bytes_ = 0;
};

class Worker {
 public:
  nlohmann::json answer(const nlohmann::json &question) {
    const std::string what = question.at("what");
    if (what == "open") return open(question.at("job").get<ContestantJob>());
    if (what == "check") return check();
    return time(question.at("threads"), question.at("seconds"));
  }

 private:
  nlohmann::json open(const ContestantJob &job) {
    job_ = job;
    library_ = Library::open(job.library, job.name);
    if (!job.level.empty()) library_->set_level(job.level);
    request_ = {job.kernel, {parse_pass(job.pass)}, Problem::parse(job.problem), "", {}};
    filed_ = operands(request_.problem, "");
    return nlohmann::json::object();
  }

  nlohmann::json check() {
    library_->set_threads(*std::max_element(job_.threads.begin(), job_.threads.end()));
    check_kernel(*library_, request_, job_.seed, most_products);
    check_steady();
    return {{"digest", digest()}};
  }

  // Of the result of integers for which every sum is exact: no order of the terms, and no schedule, changes a bit.
  std::string digest() {
    const PassKind pass = parse_pass(job_.pass);
    const Problem &p = request_.problem;
    const bool sums = pass == PassKind::forward || pass == PassKind::input_gradient || pass == PassKind::weight_gradient || pass == PassKind::bias_gradient;
    const bool rounds = p.type == Type::u8s8 && p.out_type != OutType::i32;
    const bool curved = pass == PassKind::forward && p.activation.kind != Activation::Kind::none && p.activation.kind != Activation::Kind::relu;
    if (!sums || rounds || curved || !has_exact_operands(p)) return "";
    const TimedCall *call = call_of(job_.threads.back());
    (*call)();
    const Tensor result = call->result();
    std::uint64_t hash = 0xcbf29ce484222325u;
    const float *data = result.data<float>();
    for (std::int64_t i = 0; i < result.elements(); i++) {
      std::uint32_t bits = 0;
      const float value = data[i] + 0.0f;  // -0 is 0
      std::memcpy(&bits, &value, sizeof bits);
      hash = (hash ^ bits) * 0x100000001b3u;
      hash ^= hash >> 29;
    }
    return fmt::format("{:016x}", hash);
  }

  // The same inputs give the same bits: at one thread, at all, at one more than that, and over memory of other contents.
  void check_steady() {
    const Pass pass = library_->pass(job_.kernel, job_.pass);
    const int inputs = pass.arguments() - pass.outputs(), most = *std::max_element(job_.threads.begin(), job_.threads.end());
    std::vector<Guarded> arguments, first;
    for (int i = 0; i < inputs; i++) {
      arguments.emplace_back(pass.describe(pass.argument_name(i)), (unsigned char)0);
      fill(arguments.back().tensor);
    }
    const std::vector<Guarded> untouched = copies(arguments);
    for (const auto &[threads, filler] : {std::pair(1, 0x00), std::pair(1, 0xff), std::pair(most, 0x7f), std::pair(most + 1, 0x40)}) {
      library_->set_threads(threads);
      mallopt(M_PERTURB, filler ^ 0x35);
      std::vector<Guarded> results;
      std::vector<std::pair<std::string, Tensor>> named;
      for (int i = inputs; i < pass.arguments(); i++) results.emplace_back(pass.describe(pass.argument_name(i)), (unsigned char)filler);
      for (int i = 0; i < inputs; i++) named.push_back({pass.argument_name(i), arguments[size_t(i)].tensor});
      for (int i = inputs; i < pass.arguments(); i++) named.push_back({pass.argument_name(i), results[size_t(i - inputs)].tensor});
      pass.run(named);
      for (auto &r : results)
        if (!r.intact()) throw CheckFailed("wrote beside its result");
      for (size_t i = 0; i < arguments.size(); i++)
        if (!arguments[i].intact() || !arguments[i].same(untouched[i])) throw CheckFailed("wrote to what it reads");
      if (first.empty()) first = std::move(results);
      else
        for (size_t i = 0; i < first.size(); i++)
          if (!first[i].same(results[i])) throw CheckFailed(fmt::format("other bits from another run (with {} threads)", threads));
    }
    mallopt(M_PERTURB, 0);
  }

  // Numbers whose sums round, so that another order of the terms shows.
  static void fill(const Tensor &t) {
    Tensor values(t.shape());
    std::uint64_t state = 88172645463325252u;
    float *data = values.data<float>();
    for (std::int64_t i = 0; i < values.elements(); i++) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      data[i] = is_float(t.type()) ? float(double(state >> 11) * 0x1p-53) - 0.5f : float(state >> 32 & 0x3f);
    }
    t.copy_from(values.as(t.type()));
  }

  static std::vector<Guarded> copies(const std::vector<Guarded> &from) {
    std::vector<Guarded> list;
    for (auto &g : from) list.emplace_back(g.tensor.c(), (unsigned char)0), list.back().tensor.copy_from(g.tensor);
    return list;
  }

  nlohmann::json time(int threads, double seconds) {
    const TimedCall *call = call_of(threads);
    pin(threads);
    const Times t = call->time(seconds);
    return {{"min_us", t.min_us}, {"median_us", t.median_us}};
  }

  const TimedCall *call_of(int threads) {
    library_->set_threads(threads);
    auto &call = calls_[threads];
    if (!call) call = std::make_unique<TimedCall>(*library_, job_.kernel, parse_pass(job_.pass), filed_, threads);
    return call.get();
  }

  // One thread stays on one processor, so that its caches stay its own.
  void pin(int threads) {
    if (!everywhere_) {
      everywhere_.emplace();
      sched_getaffinity(0, sizeof *everywhere_, &*everywhere_);
    }
    cpu_set_t one = *everywhere_;
    if (threads == 1 && CPU_COUNT(&one) > 1) {
      int last = CPU_SETSIZE - 1;
      while (!CPU_ISSET(last, &one)) last--;
      CPU_ZERO(&one);
      CPU_SET(last, &one);
    }
    sched_setaffinity(0, sizeof one, &one);
  }

  ContestantJob job_;
  std::optional<Library> library_;
  KernelRequest request_;
  std::map<std::string, Tensor> filed_;
  std::map<int, std::unique_ptr<TimedCall>> calls_;
  std::optional<cpu_set_t> everywhere_;
};

}  // namespace

int contestant_worker() {
  end_with_parent();
  // What the kernel prints goes nowhere; answers go out by a descriptor that it does not know.
  FileDescriptor answers(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 64)), nowhere(open("/dev/null", O_WRONLY | O_CLOEXEC));
  dup2(nowhere.get(), STDOUT_FILENO);
  Worker worker;
  for (std::string line; std::getline(std::cin, line);) {
    nlohmann::json answer;
    const auto question = nlohmann::json::parse(line, nullptr, false);
    try {
      answer = worker.answer(question);
    } catch (const std::exception &e) { answer = {{"fault", std::string(e.what()).substr(0, 2000)}}; }
    answer["number"] = question.is_object() ? question.value("number", 0) : 0;
    std::string text = answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    for (size_t at = 0; at < text.size();) {
      const ssize_t count = write(answers.get(), text.data() + at, text.size() - at);
      if (count > 0) at += size_t(count);
      else if (errno != EINTR) return 1;
    }
  }
  return 0;
}

}  // namespace convsmith
