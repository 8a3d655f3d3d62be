// Reads a log with the packages that Go's own checksum database is verified with:
// golang.org/x/mod/sumdb/note and golang.org/x/mod/sumdb/tlog.
//
//	go_reader FOLDER LOGKEY COSIGNED [WITNESSKEY...]
//
// Every hash tile is authenticated against the checkpoint, every entry against its tile; the tree
// of the cosigned checkpoint must be a prefix of the log's. Prints the size and the cosigners.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// tiles reads tlog-tiles: as tlog does, but without the height in the paths.
type tiles struct{ folder string }

func (t tiles) Height() int { return 8 }

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		content, err := os.ReadFile(filepath.Join(t.folder, path))
		if err != nil {
			return nil, err
		}
		all = append(all, content)
	}
	return all, nil
}

// cosigner verifies tlog-cosignature v1, which the note package leaves to its callers.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(signature)
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, text)
	return ed25519.Verify(c.key, []byte(message), signature[8:])
}

func parseCosigner(vkey string) cosigner {
	parts := strings.SplitN(vkey, "+", 3)
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	check(err)
	material, err := base64.StdEncoding.DecodeString(parts[2])
	check(err)
	if len(material) != 33 || material[0] != 4 {
		fail("not a cosigner's key")
	}
	return cosigner{parts[0], uint32(hash), material[1:]}
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, "wrong:", why)
	os.Exit(1)
}

// parseTree reads a checkpoint's text (tlog-checkpoint).
func parseTree(text string) tlog.Tree {
	lines := strings.Split(text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	return tlog.Tree{N: size, Hash: root}
}

func open(path string, verifiers ...note.Verifier) *note.Note {
	content, err := os.ReadFile(path)
	check(err)
	opened, err := note.Open(content, note.VerifierList(verifiers...))
	check(err)
	return opened
}

// checkEntries holds each entry of each bundle against the authenticated leaf hashes.
func checkEntries(folder string, tree tlog.Tree, hashes tlog.HashReader) {
	for start := int64(0); start < tree.N; start += 256 {
		width := tree.N - start
		if width > 256 {
			width = 256
		}
		tile := tlog.Tile{H: 8, L: -1, N: start / 256, W: int(width)}
		path := strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1)
		content, err := os.ReadFile(filepath.Join(folder, path))
		check(err)
		var indexes []int64
		for i := int64(0); i < width; i++ {
			indexes = append(indexes, tlog.StoredHashIndex(0, start+i))
		}
		leaves, err := hashes.ReadHashes(indexes)
		check(err)
		for _, leaf := range leaves {
			if len(content) < 2 {
				fail("an entry bundle is too short")
			}
			end := 2 + int(binary.BigEndian.Uint16(content))
			if len(content) < end || tlog.RecordHash(content[2:end]) != leaf {
				fail("an entry is not the one in the tree")
			}
			content = content[end:]
		}
		if len(content) != 0 {
			fail("an entry bundle is too long")
		}
	}
}

func main() {
	folder, cosigned := os.Args[1], os.Args[3]
	logKey, err := note.NewVerifier(os.Args[2])
	check(err)
	tree := parseTree(open(filepath.Join(folder, "checkpoint"), logKey).Text)
	hashes := tlog.TileHashReader(tree, tiles{folder})
	root, err := tlog.TreeHash(tree.N, hashes)
	check(err)
	if root != tree.Hash {
		fail("the tiles do not lead to the root")
	}
	checkEntries(folder, tree, hashes)

	verifiers := []note.Verifier{logKey}
	for _, vkey := range os.Args[4:] {
		verifiers = append(verifiers, parseCosigner(vkey))
	}
	opened := open(cosigned, verifiers...)
	older := parseTree(opened.Text)
	proof, err := tlog.ProveTree(tree.N, older.N, hashes)
	check(err)
	check(tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash))
	names := []string{}
	for _, signature := range opened.Sigs {
		names = append(names, signature.Name)
	}
	fmt.Println(tree.N, strings.Join(names, " "))
}
