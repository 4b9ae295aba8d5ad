package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticks is USER_HZ, the unit in which Linux tells CPU time, in 1/s. It is the
// same on all architectures that Go runs on.
const ticks = 100

// usage is what processes have used until now.
type usage struct {
	user, system float64 // CPU time, in seconds
	rss          float64 // resident memory, in bytes
	files        float64 // open descriptors
}

func (u usage) cpu() float64 { return u.user + u.system }

// view is what had been used at one moment.
type view struct {
	at                      time.Time
	program, bench, machine usage // bench is the program and all that loads it
	held                    held
}

// look takes a view of the program and the other processes of the run.
func look(program *process, others ...*process) (v view, err error) {
	if program != nil {
		if v.program, err = groupUsage(program.group()); err != nil {
			return v, err
		}
	}
	groups := []int{syscall.Getpgrp()}
	for _, p := range append(others, program) {
		if p != nil {
			groups = append(groups, p.group())
		}
	}
	if v.bench, err = groupUsage(groups...); err != nil {
		return v, err
	}
	v.machine, err = machineUsage()
	v.at = time.Now()
	return v, err
}

// rss is the program's resident memory in bytes, or not a number without one.
func (v view) rss() float64 {
	if v.program.rss == 0 {
		return math.NaN()
	}
	return v.program.rss
}

// machineUsage reads what all of the machine has used. Its rss is 0.
func machineUsage() (usage, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return usage{}, err
	}
	return parseMachine(text)
}

// parseMachine reads /proc/stat. Time that was stolen, or waited, is not used.
func parseMachine(text []byte) (usage, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 8 || fields[0] != "cpu" {
		return usage{}, fmt.Errorf("reading /proc/stat: no CPU times in %q", line)
	}
	var at [8]float64 // user nice system idle iowait irq softirq
	for i := 1; i < len(at); i++ {
		n, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return usage{}, fmt.Errorf("reading /proc/stat: %w", err)
		}
		at[i] = n / ticks
	}
	return usage{user: at[1] + at[2], system: at[3] + at[6] + at[7]}, nil
}

// groupUsage adds up what the processes of some process groups have used.
func groupUsage(groups ...int) (usage, error) {
	var sum usage
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return sum, err
	}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended since
		}
		group, used, err := parseProcess(text)
		if err != nil {
			return sum, fmt.Errorf("reading %s: %w", name, err)
		}
		if slices.Contains(groups, group) {
			open, err := os.ReadDir(filepath.Join(filepath.Dir(name), "fd"))
			if err != nil {
				continue // likewise
			}
			sum = usage{sum.user + used.user, sum.system + used.system, sum.rss + used.rss, sum.files + float64(len(open))}
		}
	}
	return sum, nil
}

// parseProcess reads /proc/PID/stat, see proc_pid_stat(5). The second field
// may contain anything but ends with the last parenthesis.
func parseProcess(text []byte) (group int, used usage, err error) {
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from field 3
	if len(fields) < 22 {
		return 0, usage{}, fmt.Errorf("only %d fields", len(fields))
	}
	var at [4]float64
	for i, field := range []int{5, 14, 15, 24} { // pgrp, utime, stime, rss
		if at[i], err = strconv.ParseFloat(fields[field-3], 64); err != nil {
			return 0, usage{}, err
		}
	}
	return int(at[0]), usage{user: at[1] / ticks, system: at[2] / ticks, rss: at[3] * float64(os.Getpagesize())}, nil
}
