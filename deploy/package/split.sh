#!/bin/sh
# Takes the debug information out of a program: split.sh PROGRAM FOLDER DEBUG_FOLDER
#
# FOLDER gets the program without it, and with a link that debuggers follow; DEBUG_FOLDER gets the rest. Without it a
# backtrace has addresses in place of names, so keep that of what you release.
set -eu
program=${1:?usage: split.sh PROGRAM FOLDER DEBUG_FOLDER}
folder=${2:?}
debug=${3:?}
name=$(basename "$program")
mkdir -p "$folder" "$debug"
objcopy --only-keep-debug --compress-debug-sections=zlib "$program" "$debug/$name.debug"
cp "$program" "$folder/$name"
strip --strip-all "$folder/$name"
objcopy --add-gnu-debuglink="$debug/$name.debug" "$folder/$name"
chmod 0644 "$debug/$name.debug"
chmod 0755 "$folder/$name"
for file in "$program" "$folder/$name" "$debug/$name.debug"; do
  printf '%10d bytes  %s\n' "$(stat --format=%s "$file")" "$file"
done
