#include "peer.h"
#include "call.h"
#include <fmt/format.h>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <sstream>
#include "convsmith/error.h"

namespace convsmith {

Peer::Peer(const std::string &option) {
  const size_t eq = option.find('=');
  std::vector<std::string> argv;
  std::istringstream words(eq == std::string::npos ? "" : option.substr(eq + 1));
  for (std::string word; words >> word;) argv.push_back(word);
  if (eq == 0 || argv.empty()) throw Error(fmt::format("--peer: expected NAME=PROGRAM ARGUMENT..., got \"{}\"", option));
  name_ = option.substr(0, eq);
  program_ = std::make_unique<Conversation>(argv);
  if (const auto said = ask("", 120)) version_ = *said;
  if (version_.empty() && reason_.empty()) reason_ = "said ok without its name and version";
}

std::optional<std::string> Peer::ask(const std::string &line, double timeout_s) {
  const std::string answer = program_->ask(line, timeout_s);
  if (answer == "ok" || answer.starts_with("ok ")) return answer.substr(std::min<size_t>(3, answer.size()));
  if (!answer.starts_with("no ")) throw Error(fmt::format("peer {}: expected \"ok\" or \"no REASON\" to \"{}\", got \"{}\"", name_, line, answer));
  reason_ = answer.substr(3);
  return std::nullopt;
}

std::optional<std::string> Peer::prepare(PassKind pass, int threads, const std::string &folder, const std::string &result, const Problem &p) {
  if (ask(fmt::format("prepare {} {} {} {} {}", pass_name(pass), threads, folder, result, p.str()), 120)) return std::nullopt;
  return reason_;
}

std::optional<std::string> Peer::prepare_like(const Tensor &ours, PassKind pass, int threads, const std::string &folder, const Problem &p) {
  const std::string file = folder + "/result.npy";
  std::filesystem::remove(file);
  if (const auto reason = prepare(pass, threads, folder, file, p)) return reason;
  if (!std::filesystem::exists(file)) return std::nullopt;
  // An 8-bit result may be rounded the other way where it lies half between.
  const double same = p.type == Type::u8s8 && p.out_type != OutType::i32 ? 1. / 128 : 1e-4, off = difference(ours, file);
  if (off <= same) return std::nullopt;
  drop();
  return fmt::format("another result: differs by {:.2g} of the largest element", off);
}

Times Peer::time(double seconds) {
  const std::string line = fmt::format("time {}", seconds);
  const std::optional<std::string> said = ask(line, 60 + 20 * seconds);
  Times t;
  std::istringstream numbers(said.value_or(""));
  if (!(numbers >> t.min_us >> t.median_us) || !(t.min_us > 0) || t.median_us < t.min_us)
    throw Error(fmt::format("peer {}: expected two times to \"{}\", got \"{}\"", name_, line, said.value_or(reason_)));
  return t;
}

void Peer::drop() { ask("drop", 60); }

std::vector<Peer> open_peers(const std::vector<std::string> &options, nlohmann::json &report, bool quiet) {
  std::vector<Peer> peers;
  for (auto &option : options) {
    Peer peer(option);
    if (std::any_of(peers.begin(), peers.end(), [&](auto &p) { return p.name() == peer.name(); }))
      throw Error(fmt::format("--peer: two are called {}: rename one", peer.name()));
    if (!peer.version().empty()) {
      report["peers"][peer.name()] = peer.version();
      peers.push_back(std::move(peer));
      continue;
    }
    report["unavailable"][peer.name()] = peer.reason();
    if (!quiet) std::cerr << fmt::format("peer {}: {}\n", peer.name(), peer.reason());
  }
  return peers;
}

}  // namespace convsmith
