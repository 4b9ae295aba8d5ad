package scripts

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = ".."
	module = "sixgate"
)

// rooms are the directories of the root that may hold code.
var rooms = []string{"appliance", "cmd", "dnsfake", "scripts", "socks", "stack"}

// mayImport is who knows whom, downwards only. Each package of the module has
// its line, so that a new one is a decision.
var mayImport = map[string][]string{
	"cmd/sixgate": {"appliance", "appliance/config"},
	"appliance": {
		"appliance/advert", "appliance/config", "appliance/confine", "appliance/host", "appliance/sight", "dnsfake", "dnsfake/upstream", "stack",
		"socks", "socks/datagram", "socks/gateway", "socks/nat64", "socks/outlet", "socks/relay", "socks/route",
	},
	"appliance/advert":  {},
	"appliance/config":  {"socks", "socks/nat64", "socks/route"},
	"appliance/confine": {"appliance/host", "stack"},
	"appliance/sight":   {"socks", "socks/gateway"},
	"appliance/host":    {},
	"dnsfake":           {"dnsfake/upstream"},
	"dnsfake/upstream":  {},
	"stack":             {"stack/endpoint"},
	"stack/endpoint":    {},
	"stack/stacktest":   {"stack", "stack/endpoint"},
	"socks":             {"socks/datagram"},
	"socks/datagram":    {},
	"socks/gateway":     {"socks", "socks/datagram", "socks/outlet", "socks/relay", "socks/route"},
	"socks/nat64":       {},
	"socks/outlet":      {"socks", "socks/datagram", "socks/nat64"},
	"socks/relay":       {"socks/datagram"},
	"socks/route":       {"socks"},
	"scripts":           {},
	"scripts/bench":     {},
}

// mayImportInTests is what the tests of a package may know beside that.
var mayImportInTests = map[string][]string{
	"appliance": {"stack/stacktest"},
	"stack":     {"stack/stacktest"},
}

// homes are the only directories, with all below them, that may import
// another project's packages; "" is everywhere.
var homes = map[string]string{
	"gvisor.dev/gvisor":              "stack",
	"golang.zx2c4.com/wireguard":     "stack",
	"github.com/miekg/dns":           "dnsfake",
	"github.com/vishvananda/netlink": "appliance/host",
	"github.com/pelletier/go-toml":   "appliance/config",
	"github.com/spf13/cobra":         "cmd/sixgate",
	"golang.org/x":                   "",
}

// testHomes adds what tests alone may import.
var testHomes = map[string]string{
	"go.uber.org/goleak": "",
}

// onlyInCommands are the calls by which a package would take from its caller the
// decision when to end, or where its settings come from.
var onlyInCommands = []string{
	"os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln",
	"os.Getenv", "os.LookupEnv", "os.Environ",
}

// vague are package names that say nothing about what is inside.
var vague = []string{"util", "utils", "common", "helper", "helpers", "types", "base", "manager"}

// goPackage is what the rules need of `go list -json`.
type goPackage struct {
	Dir, ImportPath, Name              string
	Imports, TestImports, XTestImports []string
}

// room is the package's directory in the tree, such as "socks/relay".
func (p goPackage) room() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func packages(t *testing.T) []goPackage {
	t.Helper()
	list := exec.Command("go", "list", "-json=Dir,ImportPath,Name,Imports,TestImports,XTestImports", "./...")
	list.Dir = root
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list ./...: %v", err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("reading go list: %v", err)
		}
		all = append(all, p)
	}
}

func TestImportsGoDownwards(t *testing.T) {
	for _, p := range packages(t) {
		allowed, known := mayImport[p.room()]
		if !known {
			t.Errorf("%s has no line in mayImport: say there what the new package may know", p.room())
			continue
		}
		inTests := slices.Concat(allowed, mayImportInTests[p.room()], []string{p.room()})
		checkRooms(t, p.room(), p.Imports, allowed)
		checkRooms(t, p.room()+" (its tests)", p.TestImports, inTests)
		checkRooms(t, p.room()+" (its tests)", p.XTestImports, inTests)
	}
}

func checkRooms(t *testing.T, who string, imports, allowed []string) {
	t.Helper()
	for _, path := range imports {
		room, ours := strings.CutPrefix(path, module+"/")
		if ours && !slices.Contains(allowed, room) {
			t.Errorf("%s imports %s: it may know %q only, see mayImport", who, room, allowed)
		}
	}
}

func TestOtherProjectsHaveOneHome(t *testing.T) {
	for _, p := range packages(t) {
		checkHomes(t, p.room(), p.Imports, homes)
		for _, imports := range [][]string{p.TestImports, p.XTestImports} {
			checkHomes(t, p.room(), imports, homes, testHomes)
		}
	}
}

func checkHomes(t *testing.T, room string, imports []string, tables ...map[string]string) {
	t.Helper()
	for _, path := range imports {
		first, _, _ := strings.Cut(path, "/")
		if first == module || !strings.Contains(first, ".") {
			continue // ours, or the standard library
		}
		home, found := homeOf(path, tables)
		switch {
		case !found:
			t.Errorf("%s imports %s, which has no home: a new dependency needs a written reason and a line in homes", room, path)
		case home != "" && room != home && !strings.HasPrefix(room, home+"/"):
			t.Errorf("%s imports %s: only %s may", room, path, home)
		}
	}
}

func homeOf(path string, tables []map[string]string) (home string, found bool) {
	for _, table := range tables {
		for project, home := range table {
			if path == project || strings.HasPrefix(path, project+"/") {
				return home, true
			}
		}
	}
	return "", false
}

func TestPackagesSayWhatTheyAreInOneSentence(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains(vague, p.Name) {
			t.Errorf("package %s: the name says nothing; name it for what it does", p.room())
		}
		file := parse(t, filepath.Join(p.Dir, "doc.go"))
		if file == nil {
			continue
		}
		text := strings.Join(strings.Fields(file.Doc.Text()), " ")
		switch synopsis := new(doc.Package).Synopsis(text); {
		case text == "":
			t.Errorf("%s/doc.go has no package comment", p.room())
		case synopsis != text || !strings.HasSuffix(text, "."):
			t.Errorf("%s/doc.go: the package comment is more than one sentence, or none: %q", p.room(), text)
		}
		if len(file.Decls) > 0 {
			t.Errorf("%s/doc.go holds more than the package comment", p.room())
		}
	}
}

// parse returns the syntax of a Go file, or nil after it has told t why not.
func parse(t *testing.T, name string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return nil
	}
	return file
}

// goFiles calls f with each Go file of the tree, its name relative to the root.
func goFiles(t *testing.T, f func(name string, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != root && strings.HasPrefix(entry.Name(), ".") {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		if file := parse(t, name); file != nil {
			f(strings.TrimPrefix(name, root+"/"), file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCodeIsInTheRooms(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() && name != "bin" && name != "docs" && !strings.HasPrefix(name, ".") && !slices.Contains(rooms, name) {
			t.Errorf("%s/ stands at the root: everything lives in one of %q", name, rooms)
		}
	}
	goFiles(t, func(name string, file *ast.File) {
		if dir, _, found := strings.Cut(name, "/"); !found || !slices.Contains(rooms, dir) {
			t.Errorf("%s: code lives in one of %q", name, rooms)
		}
	})
}

// TestNothingBuiltIsKept finds programs and other data among what git tracks.
func TestNothingBuiltIsKept(t *testing.T) {
	const longest = 256 << 10 // octets of a text somebody wrote
	list := exec.Command("git", "ls-files", "-z")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Skipf("asking git for the files it tracks: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		b, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > longest || bytes.IndexByte(b, 0) >= 0 {
			t.Errorf("%s is no text of at most %d octets: what is built or measured stays out of the tree", name, longest)
		}
	}
}

func TestFileNamesAreOneWord(t *testing.T) {
	oneWord := regexp.MustCompile(`^[a-z0-9]+(_linux)?(_test)?\.go$`)
	goFiles(t, func(name string, _ *ast.File) {
		if !oneWord.MatchString(path.Base(name)) {
			t.Errorf("%s: a file name is one word, with no underscores but _linux and _test", name)
		}
	})
}

func TestPackageCommentsAreInDocGo(t *testing.T) {
	goFiles(t, func(name string, file *ast.File) {
		if file.Doc != nil && path.Base(name) != "doc.go" {
			t.Errorf("%s has a package comment: it belongs in doc.go", name)
		}
	})
}

func TestNothingRunsBeforeMain(t *testing.T) {
	goFiles(t, func(name string, file *ast.File) {
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: build what is needed where it is needed", name)
			}
		}
	})
}

func TestOnlyCommandsEndTheProcessOrReadTheEnvironment(t *testing.T) {
	goFiles(t, func(name string, file *ast.File) {
		if file.Name.Name == "main" || strings.HasSuffix(name, "_test.go") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok && slices.Contains(onlyInCommands, pkg.Name+"."+sel.Sel.Name) {
					t.Errorf("%s uses %s.%s: only a command may", name, pkg.Name, sel.Sel.Name)
				}
			}
			return true
		})
	})
}

func TestErrorsSayWhatWasBeingDone(t *testing.T) {
	goFiles(t, func(name string, file *ast.File) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil && strings.Contains(strings.ToLower(text), "failed to") {
					t.Errorf("%s: %s: errors read `doing what to whom: why`", name, lit.Value)
				}
			}
			return true
		})
	})
}

// TestConformanceNamesTests wants the tests that docs/conformance.md names for
// what no probe shows.
func TestConformanceNamesTests(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, dir := range []string{"socks", "socks/*", "appliance", "appliance/*"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
				have[string(found[1])] = true
			}
		}
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(text, -1)
	if len(named) == 0 {
		t.Error("it names none")
	}
	for _, found := range named {
		if name := string(found[1]); !have[name] {
			t.Errorf("there is no %s", name)
		}
	}
}
