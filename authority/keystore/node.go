package keystore

import (
	"fcp"
	"fcp/authority"
)

// NodeFile is the name of the node key file inside a store directory.
const NodeFile = "node.key"

// CreateNode writes the keys of a node to a new file, in the clear: the daemon
// starts without a person, and what the file opens is revocable. Errors:
// CodeStoreExists when the file is there, CodeDisk.
func CreateNode(files FS, path string, node *authority.NodeKeys) error {
	b := encodeNode(node)
	defer clear(b)
	return write(files, path, b)
}

func encodeNode(node *authority.NodeKeys) []byte {
	pub := node.Public()
	secret := node.Secret()
	defer clear(secret)
	return encode(nodeType, map[string]string{
		headFormat: format, headWriter: pub.Writer().String(),
		headEncrypt: pub.Encryption.String(), headIssuance: pub.Issuance.String(),
	}, secret)
}

// LoadNode opens a node key file. want, unless nil, is the node the caller needs,
// as the store's genesis or enrolment names it. Errors: CodeNotFound,
// CodeUnauthorized when others may read the file, CodeWrongKey for another node,
// CodeMalformed for a broken file.
func LoadNode(files FS, path string, want *authority.NodePublic) (*authority.NodeKeys, error) {
	b, err := read(files, path, "put back the "+NodeFile+" that was made with this store")
	if err != nil {
		return nil, err
	}
	defer clear(b)
	node, err := decodeNode(b)
	if err != nil {
		return nil, err
	}
	if want != nil && node.Public() != *want {
		err := fcp.Errorf(fcp.CodeWrongKey, "the key file is of node %.16s, needed is %.16s", node.Writer(), want.Writer()).
			WithNext("put back the " + NodeFile + " that was made with this store")
		node.Wipe()
		return nil, err
	}
	return node, nil
}

func decodeNode(b []byte) (*authority.NodeKeys, error) {
	headers, secret, err := decode(nodeType, b, headWriter, headEncrypt, headIssuance)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	node, err := authority.NodeKeysFromSecret(secret)
	if err != nil {
		return nil, malformed("the secret is not that of a node")
	}
	pub := node.Public()
	if headers[headWriter] != pub.Writer().String() || headers[headEncrypt] != pub.Encryption.String() ||
		headers[headIssuance] != pub.Issuance.String() {
		node.Wipe()
		return nil, malformed("the secret does not belong to the keys it names")
	}
	return node, nil
}
