# Installs BUILD (configuration CONFIG) and holds its consumers against the installation, in the folder FOLDER.
#   COMMAND_FILE, ARCHIVE              the command of the build tree, and the archive of the example's spec made in it
#   GENERATOR, MAKE_PROGRAM, C_COMPILER, CXX_COMPILER   of the consumers
#   SOURCE                             the project
cmake_minimum_required(VERSION 3.28)

# Runs a command line that must succeed; what it printed is in `output`.
function(run)
  execute_process(COMMAND ${ARGV} OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE result)
  if(result)
    list(JOIN ARGV " " line)
    message(FATAL_ERROR "${line}\nexpected success, got ${result}:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

function(expect_in text wanted)
  string(FIND "${text}" "${wanted}" at)
  if(at LESS 0)
    message(FATAL_ERROR "expected \"${wanted}\" in:\n${text}")
  endif()
endfunction()

function(expect_equal_files file other)
  file(SHA256 ${file} hash)
  file(SHA256 ${other} other_hash)
  if(NOT hash STREQUAL other_hash)
    message(FATAL_ERROR "expected the same bytes in ${file} and ${other}")
  endif()
endfunction()

# When the emitted archive and the linked program were written last.
function(times archive_time program_time)
  file(TIMESTAMP ${archive} archive_written "%s.%f")
  file(TIMESTAMP ${program} program_written "%s.%f")
  set(${archive_time} ${archive_written} PARENT_SCOPE)
  set(${program_time} ${program_written} PARENT_SCOPE)
endfunction()

function(expect_made_again what)
  times(archive_before program_before)
  run(${CMAKE_COMMAND} --build ${FOLDER}/example_build)
  times(archive_after program_after)
  if(archive_after STREQUAL archive_before OR program_after STREQUAL program_before)
    message(FATAL_ERROR "expected ${what} to make the archive and the program again, got:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${FOLDER})
set(ENV{CONVSMITH_CACHE} ${FOLDER}/cache)
file(COPY ${SOURCE}/examples/cmake/ DESTINATION ${FOLDER}/example)
set(toolchain -G ${GENERATOR} -D CMAKE_MAKE_PROGRAM=${MAKE_PROGRAM} -D CMAKE_BUILD_TYPE=Release -D CMAKE_C_COMPILER=${C_COMPILER}
    -D CMAKE_CXX_COMPILER=${CXX_COMPILER} -D CMAKE_PREFIX_PATH=${FOLDER}/prefix -D CMAKE_DISABLE_FIND_PACKAGE_Halide=ON)
if(CONFIG)
  set(config --config ${CONFIG})
endif()
run(${CMAKE_COMMAND} --install ${BUILD} ${config} --prefix ${FOLDER}/prefix)

# The example learns with the kernels of a command that is installed.
run(${CMAKE_COMMAND} -S ${FOLDER}/example -B ${FOLDER}/example_build ${toolchain})
run(${CMAKE_COMMAND} --build ${FOLDER}/example_build)
set(program ${FOLDER}/example_build/learn_edges)
set(archive ${FOLDER}/example_build/filters_kernels/libfilters.a)
run(${program})
expect_in("${output}" "step 10: loss 0.086\nlearnt: 0.9558 -1.0140\n")

# The same bytes from CMake out of the tree, from CMake in the tree and from the command.
run(${COMMAND_FILE} emit ${SOURCE}/examples/cmake/filters.spec --output ${FOLDER}/emitted --cc ${C_COMPILER})
expect_equal_files(${archive} ${FOLDER}/emitted/libfilters.a)
expect_equal_files(${archive} ${ARCHIVE})

# What has not changed is left alone; what has is made again.
times(archive_before program_before)
run(${CMAKE_COMMAND} --build ${FOLDER}/example_build)
times(archive_after program_after)
if(NOT archive_after STREQUAL archive_before OR NOT program_after STREQUAL program_before)
  message(FATAL_ERROR "expected an unchanged build to do nothing, got:\n${output}")
endif()
if(GENERATOR MATCHES Ninja)
  expect_in("${output}" "no work to do")
endif()
file(TOUCH ${FOLDER}/example/filters.spec)
expect_made_again("a touched spec")
file(TOUCH ${FOLDER}/prefix/bin/convsmith)
expect_made_again("another command")
expect_equal_files(${archive} ${FOLDER}/emitted/libfilters.a)

# A consumer in plain C, in another folder than its kernels, with weights that its build learns.
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/find_package -B ${FOLDER}/c_build ${toolchain})
run(${CMAKE_COMMAND} --build ${FOLDER}/c_build)
run(${FOLDER}/c_build/apply_edges)

# Records of the project's own, and a compiler behind another program. A record that is gone is no record any more.
file(WRITE ${FOLDER}/launcher "#!/bin/sh\nexec \"$@\"\n")
file(CHMOD ${FOLDER}/launcher PERMISSIONS OWNER_READ OWNER_EXECUTE)
file(WRITE ${FOLDER}/own/a.spec "k : weight_gradient : ic=8 oc=8 in=5x5 kernel=3\n")
run(${COMMAND_FILE} explain "ic=8 oc=8 in=5x5 kernel=3" --passes weight_gradient --target x86-64 --json)
string(JSON schedule GET "${output}" passes 0 schedule)
string(JSON knobs GET "${output}" passes 0 knobs)
file(WRITE ${FOLDER}/own/records/x86-64.rec "ic=8 oc=8 in=5x5 kernel=3 | weight_gradient | * | ${schedule} ${knobs} | gflops=1\n")
file(WRITE ${FOLDER}/own/CMakeLists.txt "cmake_minimum_required(VERSION 3.28)\nproject(own LANGUAGES C)\nfind_package(convsmith REQUIRED)\n"
     "convsmith_add_kernels(a SPEC a.spec TARGETS x86-64 RECORDS records NO_VERIFY)\n")
set(ENV{CC} "${FOLDER}/launcher ${C_COMPILER}")
run(${CMAKE_COMMAND} -S ${FOLDER}/own -B ${FOLDER}/own_build -G ${GENERATOR} -D CMAKE_MAKE_PROGRAM=${MAKE_PROGRAM} -D CMAKE_PREFIX_PATH=${FOLDER}/prefix)
unset(ENV{CC})
run(${CMAKE_COMMAND} --build ${FOLDER}/own_build)
file(READ ${FOLDER}/own_build/a_kernels/a.json manifest)
expect_in("${manifest}" "the record ${FOLDER}/own/records/x86-64.rec:1")
file(REMOVE ${FOLDER}/own/records/x86-64.rec)
run(${CMAKE_COMMAND} --build ${FOLDER}/own_build)
file(READ ${FOLDER}/own_build/a_kernels/a.json manifest)
expect_in("${manifest}" "no record")

# The words of each error: LANGUAGE | call | message.
set(spec "SPEC kernels/edges.spec")
set(errors
  "C | convsmith_add_kernels(9k ${spec}) | convsmith_add_kernels(9k): expected a name of letters, digits and _, got \"9k\""
  "C | convsmith_add_kernels(convsmith ${spec}) | expected another name, as convsmith is that of the run-time's own functions"
  "C | convsmith_add_kernels(k) | convsmith_add_kernels(k): expected SPEC and a file of lines NAME : PASSES : PROBLEM"
  "C | convsmith_add_kernels(k SPEC) | convsmith_add_kernels(k): expected a value after SPEC"
  "C | convsmith_add_kernels(k SPEC none.spec) | SPEC: there is no file ${SOURCE}/tests/find_package/none.spec"
  "C | convsmith_add_kernels(k ${spec} TARGET host) | expected SPEC, TARGETS, WEIGHTS, RECORDS or NO_VERIFY, got \"TARGET\""
  "C | convsmith_add_kernels(k ${spec} WEIGHTS k.npy) | WEIGHTS: expected KERNEL=FILE, got \"k.npy\""
  "C | convsmith_add_kernels(k ${spec} RECORDS none) | RECORDS: there is no folder ${SOURCE}/tests/find_package/none"
  "C | convsmith_add_kernels(k ${spec}) convsmith_add_kernels(k ${spec}) | a target of that name is there already"
  "CXX | convsmith_add_kernels(k ${spec}) | expected a C compiler: add C to the languages of the project")
foreach(entry IN LISTS errors)
  string(REPLACE " | " ";" entry "${entry}")
  list(GET entry 0 language)
  list(GET entry 1 call)
  list(GET entry 2 wanted)
  string(REPLACE ") " ")\n" call "${call}")
  execute_process(
    COMMAND ${CMAKE_COMMAND} -S ${SOURCE}/tests/find_package -B ${FOLDER}/${language}_error_build ${toolchain}
            -D LANGUAGE=${language} -D CALL=${call}
    OUTPUT_QUIET ERROR_VARIABLE output RESULT_VARIABLE result)
  if(NOT result)
    message(FATAL_ERROR "${call}\nexpected an error: ${wanted}")
  endif()
  # CMake breaks messages into lines.
  string(REGEX REPLACE "[ \n]+" " " output "${output}")
  expect_in("${output}" "${wanted}")
endforeach()
