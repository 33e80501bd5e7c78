// Whole files: read at once, written so that no reader ever sees half of one.
#pragma once
#include <string>
#include <string_view>

namespace convsmith {

/// Every byte of a file. Throws Error with the path and the system's words.
std::string read_file(const std::string &path);

/// Replaces a file by these bytes, or leaves it as it was: they are written to a temporary file in the same folder,
/// synchronised, and renamed over it. A symbolic link keeps pointing; the old file's permissions are kept; what is not
/// a regular file (a pipe) is written directly, and so is a file that is open already (/dev/stdout, /dev/fd/3), where it stands. Throws Error with the path and the system's words.
void write_file(const std::string &path, std::string_view bytes);

}  // namespace convsmith
