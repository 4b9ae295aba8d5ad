// Command bench measures sixgate side by side with other ways through a
// gateway, in network namespaces of its own.
package main
