include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# Halide is not installed with the command, which loads libHalide.so from where this build found it.
set_target_properties(convsmith PROPERTIES INSTALL_RPATH $<TARGET_FILE_DIR:Halide::Halide>)
install(TARGETS convsmith convsmith_runtime EXPORT convsmith-targets)
install(FILES LICENSE TYPE DOC)

# The run-time needs two of Halide's headers. They have a folder of their own, so that they never replace those of a
# Halide under the same prefix.
install(DIRECTORY runtime/convsmith TYPE INCLUDE FILES_MATCHING PATTERN "*.h")
set(halide_folder ${CMAKE_INSTALL_INCLUDEDIR}/convsmith/halide)
get_target_property(halide_headers Halide::Runtime HEADER_SET)
list(FILTER halide_headers INCLUDE REGEX "/Halide(Buffer|Runtime)\\.h$")
list(GET halide_headers 0 halide_licence)
cmake_path(SET halide_licence NORMALIZE ${halide_licence}/../../share/doc/Halide/LICENSE.txt)
install(FILES ${halide_headers} DESTINATION ${halide_folder})
install(FILES ${halide_licence} DESTINATION ${halide_folder} OPTIONAL)
target_include_directories(convsmith_runtime INTERFACE $<INSTALL_INTERFACE:${halide_folder}>)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/convsmith)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/convsmith-config-version.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT convsmith-targets NAMESPACE convsmith:: DESTINATION ${package_folder})
install(FILES
  cmake/convsmith-config.cmake
  cmake/ConvsmithAddKernels.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/convsmith-config-version.cmake
  DESTINATION ${package_folder})
