# Sourced by each bash of a stack that may get another clock (BASH_ENV). Where the folder CLOCKS has a file with the
# name and the arguments of the script that this bash runs, such as "start-job.sh fog 1", what the script starts has the
# clock of that file (clock.c).
mapfile -d '' -t words <"/proc/$$/cmdline"
line=${words[*]:1}
if [[ -f $CLOCKS/${line##*/} ]]; then
  export LD_PRELOAD=$CLOCKS/clock.so CLOCK_FILE=$CLOCKS/${line##*/}
fi
unset words line
