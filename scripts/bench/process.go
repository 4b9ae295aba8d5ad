package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience is how long a program gets to end after SIGTERM.
const patience = 5 * time.Second

// process is a program that runs, with all processes that it starts: they are
// one process group. A nil one is none.
type process struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	stdin  io.Closer
	stdout *bufio.Reader // nil if it goes to the log
	log    string        // the file that its output goes to
}

// start starts a program on a host. It ends by stop, or when ctx does.
func (n *network) start(ctx context.Context, host string, argv ...string) (*process, error) {
	p := n.process(ctx, n.on(host, argv))
	return p, p.launch(n.work, func(log *os.File) error {
		p.cmd.Stdout = log
		return nil
	})
}

// part starts this program as a part of the network, which talks to the bench
// by lines. A part on no host, "", is a cable.
func (n *network) part(ctx context.Context, host string, args ...string) (*process, error) {
	p := n.process(ctx, n.on(host, append([]string{n.self}, args...)))
	return p, p.launch(n.work, func(*os.File) error {
		stdout, err := p.cmd.StdoutPipe()
		p.stdout = bufio.NewReader(stdout)
		return err
	})
}

// on is the command that runs another one on a host.
func (n *network) on(host string, argv []string) []string {
	if host == "" {
		return argv
	}
	return append([]string{"ip", "netns", "exec", n.host(host)}, argv...)
}

func (n *network) process(ctx context.Context, argv []string) *process {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = patience
	return &process{cmd: cmd, cancel: cancel}
}

func (p *process) launch(work string, output func(log *os.File) error) error {
	err := func() error {
		log, err := os.CreateTemp(work, "*.log")
		if err != nil {
			return err
		}
		defer log.Close()
		p.log, p.cmd.Stderr = log.Name(), log
		if err := output(log); err != nil {
			return err
		}
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			return err
		}
		return p.cmd.Start()
	}()
	if err != nil {
		p.cancel()
		return fmt.Errorf("starting %s: %w", p, err)
	}
	return nil
}

// String is the command line, as a person would type it.
func (p *process) String() string {
	return filepath.Base(p.cmd.Path) + " " + strings.Join(p.cmd.Args[1:], " ")
}

// group is the process group, whose number is that of its first process.
func (p *process) group() int { return p.cmd.Process.Pid }

// line waits for the next line of a part.
func (p *process) line() (string, error) {
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("waiting for an answer of %s: %w%s", p, err, p.lastWords())
	}
	return strings.TrimSuffix(line, "\n"), nil
}

// lastWords is the end of the program's log, to be put behind an error.
func (p *process) lastWords() string {
	if p == nil {
		return ""
	}
	log, err := os.ReadFile(p.log)
	if err != nil || len(log) == 0 {
		return ""
	}
	last := bytes.Join(bytes.Fields(log[max(0, len(log)-300):]), []byte(" "))
	return ": it said: " + string(last)
}

// stop ends the program and all processes of its group.
func (p *process) stop() {
	if p == nil {
		return
	}
	p.cancel()
	p.stdin.Close()
	p.cmd.Wait() // how it ends is of no interest once it has been told to
	syscall.Kill(-p.group(), syscall.SIGKILL)
}
