package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// obstacles are settings by which a machine forbids namespaces to its users.
var obstacles = []struct{ key, value, advice string }{
	{"kernel.unprivileged_userns_clone", "0", "`sysctl -w kernel.unprivileged_userns_clone=1` allows them"},
	{"user.max_user_namespaces", "0", "`sysctl -w user.max_user_namespaces=10000` allows them"},
	{"kernel.apparmor_restrict_unprivileged_userns", "1", "an AppArmor profile with `userns,` for sixgate allows them, as does `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"},
}

// obstacle tells what may be behind err, and what to do about it.
func obstacle(err error) string {
	allowed := !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EINVAL)
	if allowed || privileged() {
		return ""
	}
	for _, o := range obstacles {
		value, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(o.key, ".", "/"))
		if err == nil && strings.TrimSpace(string(value)) == o.value {
			return fmt.Sprintf(" (%s is %s: users may have no namespaces; %s)", o.key, o.value, o.advice)
		}
	}
	return ""
}
