// Which channels a list of live weights reads and writes: only those are packed.
#pragma once
#include "abi.h"
#include <cstring>
#include <vector>

namespace edgecl {
namespace EDGECL_NS {

using Channels = std::vector<int32_t>;  // those that some live weight reads, in order

struct Group {           // rows that have the same live columns: an entry of `rowptr` in lists by block (conv1_block.h)
    int32_t begin, end;  // of its columns in `col`
    int32_t first;       // weight in `w`
    int32_t size;        // rows
    int32_t row[4];
};

inline const Group* groups_of(const Csr& m) { return reinterpret_cast<const Group*>(m.rowptr); }

struct Used {  // flags of a list's columns or rows that have a live weight
    std::vector<uint8_t> flags;
    explicit Used(int n) : flags(static_cast<std::size_t>(n)) {}

    void all() { std::memset(flags.data(), 1, flags.size()); }

    void columns(const Csr& m, int unit) {
        const int n = unit != BY_BLOCK ? m.n : m.rows ? groups_of(m)[m.rows - 1].end : 0;
        for (int k = 0; k < n; k++) flags[m.col[k]] = 1;
    }

    void rows(const Csr& m, int unit) {
        for (int i = 0; i < m.rows; i++) {
            if (unit != BY_BLOCK) flags[i] |= m.rowptr[i] < m.rowptr[i + 1];
            else if (const Group& g = groups_of(m)[i]; g.begin < g.end) for (int r = 0; r < g.size; r++) flags[g.row[r]] = 1;
        }
    }

    Channels list() const {
        Channels found;
        found.reserve(flags.size());
        for (std::size_t i = 0; i < flags.size(); i++) if (flags[i]) found.push_back(static_cast<int32_t>(i));
        return found;
    }
};

inline Channels columns_of(const Csr& m, int unit, int channels, bool full) {
    Used used(channels);
    full ? used.all() : used.columns(m, unit);
    return used.list();
}

}
}
