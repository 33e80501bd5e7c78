# Gives convsmith::runtime, the command convsmith::convsmith and the function convsmith_add_kernels.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/convsmith-targets.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/ConvsmithAddKernels.cmake)
